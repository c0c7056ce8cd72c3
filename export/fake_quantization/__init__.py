"""Fine-tuning an adder network for few bits, and its way to integer nodes."""
