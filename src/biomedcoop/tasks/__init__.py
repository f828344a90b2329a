"""What a fit is asked for, and the task that methods then see."""
