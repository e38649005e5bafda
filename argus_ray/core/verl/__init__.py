"""All pure knowledge of verl: command lines, failures in its logs, metrics lines, files that it reads and leaves."""
