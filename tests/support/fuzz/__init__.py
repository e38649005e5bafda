"""Random calls to the whole gateway, over a real service and database, in this process: `wire` sends them, `world` is
what they meet, `cases` what is sent beside schemathesis's own, `judge` what no answer may be, `run` the campaign."""
