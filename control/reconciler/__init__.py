"""Brings every node to its desired state. Runs as a user of its own: the one process that reads private keys.

A pass over one node, in this order (`worker`):

    identity   learn the node's keys once, certify them, answer its certificate request
    invitations  take letters of devices that redeem one, admit them, answer them
    uploads    send model files that the node lacks
    rows       read what the database wants; `render` makes the bundle of it (pure); `generations` numbers it
    apply      sign, send, record what was accepted
    health     store what the node says about itself
    receipts   pull, verify and store each exactly once

Revocations do not wait for a pass: a hint makes `revocations` send them at once, on a lane of their own.
"""
