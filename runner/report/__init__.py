"""What people see: tables, lines and pictures in a terminal, made from the facts of a run. Pure text, no I/O."""
