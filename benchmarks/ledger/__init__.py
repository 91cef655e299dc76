"""The ledger's figures: power cuts, rates, outages, and processes that are killed."""
