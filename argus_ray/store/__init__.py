"""SQLite persistence: one writer, rows and transactions. It knows no rules."""
