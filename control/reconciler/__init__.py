"""Brings every node to its desired state. Runs as a user of its own: the one process that reads private keys.

A pass over one node, in this order (`worker`):

    identity   learn the node's keys once, certify them, answer its certificate request
    invitations  take letters of devices that redeem one, admit them, answer them
    rows       read what the database wants; `render` makes the bundle of it (pure); `generations` numbers it, and `outline`
               says what it changes (pure)
    plans      answer who asked what it would do
    uploads    send model files that the node lacks
    apply      sign, send, record what was accepted
    health     store what the node says about itself, and raise alarms over it
    receipts   pull, verify and store each exactly once

Revocations do not wait for a pass: a hint makes `revocations` send them at once, on a lane of their own.
"""
