"""Published results rebuilt: worlds calibrated on what was published of their baselines, and ours judged by ratio to those."""
