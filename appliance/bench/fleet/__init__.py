"""`appliance bench fleet`: what ten thousand devices cost, from control's database to the node's kernel.

`fill` puts them into control's database, `fleet` measures in the lab.
"""
