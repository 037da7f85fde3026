"""The simulator: the live gateway's own Core, driven by a heap and a virtual clock over modelled engines."""
