"""`python -m tao2serve`, the same as the command `tao2serve`."""

from tao2serve.cli.main import main

if __name__ == "__main__":
    main()
