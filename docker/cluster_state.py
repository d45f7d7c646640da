"""Prints the cluster as the master sees it. Read by a Python in the master's container."""

import json
import urllib.request

with urllib.request.urlopen("http://127.0.0.1:8080/json/", timeout=10) as answer:
    master = json.load(answer)
alive = [worker for worker in master["workers"] if worker["state"] == "ALIVE"]
print(
    f"Spark master {master['url']} is {master['status']}: {len(alive)} workers, "
    f"{master['coresused']} of {master['cores']} cores and "
    f"{master['memoryused']} of {master['memory']} MB in use, "
    f"{len(master['activeapps'])} applications running"
)
for worker in sorted(alive, key=lambda worker: str(worker["host"])):
    print(
        f"    {worker['host']:<18} {worker['coresused']} of {worker['cores']} cores, "
        f"{worker['memoryused']} of {worker['memory']} MB in use"
    )
