"""The ledger in SQLite or PostgreSQL: claims, leases, results. Read schema.py first, then claims.py."""
