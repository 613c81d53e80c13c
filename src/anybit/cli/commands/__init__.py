"""One file a command, each listed in `anybit.cli.main`. Nothing heavy is imported before a command runs."""
