"""`python -m paro`: the command line."""

from paro.cli.main import run

if __name__ == "__main__":
    run()
