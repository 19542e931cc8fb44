"""What is done to tasks: one module a stage, and what stages share. No stage imports another's plan."""
