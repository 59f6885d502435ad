"""The mailbox: where a device that redeems an invitation leaves its letter and finds control's answer (docs/spec/enrolment-v1.md).

An unprivileged process behind NGINX (`service`, `http`). It reads whom the agent lets in (`roster`), and writes letters to a folder of its
own (`spool`), which the agent hands to control. It can open neither a letter nor an answer.
"""
