"""Corpora: files by the thousand against keys, in constant memory.

    from pathlib import Path
    from watermark import load_keys
    from watermark.corpora import scan

    records = load_keys(Path("KEYS.toml")).records
    result = scan(["data/*.jsonl.zst"], records, out=Path("hits.parquet"), processes=8)
    print(result.pooled[0].log10_pvalue_family, result.n_hits)

The rooms of this one, in the order of the work: `sources` finds files, `shards` shares them out,
`readers` and `fields` take records from them, `cutting` cuts texts into positions, `blocks` and
`workers` (or `cluster`) do that by the shard, `scoring` holds keys against documents, `journal`
keeps what is done, `pooling` holds keys against the whole, `hits` and `broken` write the result.
"""

from watermark.corpora.results import BrokenRecord, PooledResult, Progress, ScanResult
from watermark.corpora.scanning import DEFAULT_FDR, scan

__all__ = ["DEFAULT_FDR", "BrokenRecord", "PooledResult", "Progress", "ScanResult", "scan"]
