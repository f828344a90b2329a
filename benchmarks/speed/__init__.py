"""Time and memory, beside what the machine allows."""
