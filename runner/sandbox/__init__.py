"""Stand-ins for the outside: real servers on loopback for the demo, the tests and a user's laptop.

They share no code with the rest of the program except its errors and logs: gzip, CSV and catalogue code here is
their own, so that they can prove ours wrong.
"""
