"""`python -m kbs`: the command line, where the `kbs` script is not on the search path."""

from kbs.cli import main

if __name__ == "__main__":
    main()
