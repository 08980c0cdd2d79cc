"""`python -m mgc_ray NAME …`: the same as `python -m mgc_ray.NAME …`."""

from mgc_ray.terminal.main import main

main()
