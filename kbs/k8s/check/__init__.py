"""Would this Pod attest, and if not, why: looked at before anything is started. Source: guest-components 4 to 7."""
