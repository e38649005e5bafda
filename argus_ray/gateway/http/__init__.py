"""What every route shares: access, tokens, bodies, parameters, problems."""
