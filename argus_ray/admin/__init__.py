"""What an operator does to the database while no head runs: `argus-admin`. No Ray, no HTTP."""
