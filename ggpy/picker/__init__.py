"""Which block format for which tensor: measured sensitivity and speed, an allocation, and the front of what can be had."""
