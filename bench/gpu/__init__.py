"""Host buffers on a CUDA device: how fast they are read, handed over, and read beside other work. `make bench-gpu`."""
