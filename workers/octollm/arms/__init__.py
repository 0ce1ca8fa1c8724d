"""One file per arm. Adding an arm is one file here and one entry in `streams.yaml`."""
