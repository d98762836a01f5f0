"""Run inside a namespace: GET a path of the local node and print the body."""

import sys
import urllib.request

with urllib.request.urlopen(sys.argv[1], timeout=5) as response:
    print(response.read().decode())
