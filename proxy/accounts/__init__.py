"""Who may call: accounts, how callers are known, their quotas, and what is watched of them."""
