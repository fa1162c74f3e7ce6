"""Files of variables: text to variables (`read`), variables to text (`write`).

Nothing here opens a file, asks a server or logs. `secrets` guesses which variables are
credentials.
"""
