"""`python -m benchmarks.demo`."""

from benchmarks.demo.show import main

main()
