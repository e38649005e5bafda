"""`python -m argus_ray.cli`."""

from argus_ray.cli.app import main

main()
