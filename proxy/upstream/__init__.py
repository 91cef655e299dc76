"""All outbound HTTP."""
