"""The promises as audits: black-box, each with a positive control in the same run."""
