"""The configuration: one TOML file to one frozen value.

Only this room and the command lines read files and the environment. Secrets are never values here:
the file names `KEYS.toml`, which names files.
"""

from proxy.config.ingress import IngressConfig
from proxy.config.loading import load_config, parse_config
from proxy.config.models import (
    BiasConfig,
    Capabilities,
    DefaultsConfig,
    LimitsConfig,
    ModelConfig,
    NativeConfig,
    PathLimitsConfig,
    PricesConfig,
    ReasoningConfig,
    ReplyConfig,
    SelectConfig,
    SpliceConfig,
)
from proxy.config.sections import (
    AccountsConfig,
    DetectionConfig,
    DisclosureConfig,
    EmbeddedConfig,
    KeysConfig,
    LedgerConfig,
    ProxyConfig,
    SelftestConfig,
    ServerConfig,
    UpstreamConfig,
    field_names,
)

__all__ = [
    "AccountsConfig",
    "BiasConfig",
    "Capabilities",
    "DefaultsConfig",
    "DetectionConfig",
    "DisclosureConfig",
    "EmbeddedConfig",
    "IngressConfig",
    "KeysConfig",
    "LedgerConfig",
    "LimitsConfig",
    "ModelConfig",
    "NativeConfig",
    "PathLimitsConfig",
    "PricesConfig",
    "ProxyConfig",
    "ReasoningConfig",
    "ReplyConfig",
    "SelectConfig",
    "SelftestConfig",
    "ServerConfig",
    "SpliceConfig",
    "UpstreamConfig",
    "field_names",
    "load_config",
    "parse_config",
]
