"""The ledger in SQLite or PostgreSQL: claims, leases, results. Read schema.py first, then ledger.py and claims.py."""
