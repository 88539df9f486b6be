"""The engine beside two ways of calling diffusers: the same jobs, on the same device, in one run."""
