import gc

# Until all is imported: there is nothing to collect. `main` turns it on again.
gc.disable()

from argus_ray.cli.app import main  # noqa: E402

if __name__ == "__main__":
    main()
