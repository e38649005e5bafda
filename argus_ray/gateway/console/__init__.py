"""The page for people: the files of argus_ray/console, as scripts/make-console has built them."""
