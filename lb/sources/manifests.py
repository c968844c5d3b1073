import time, yaml
from lb.sources import *
from lb.sources.convert import from_plain
class ManifestSource:
    def __init__(self,d): self.d=d
    def run(self,inbox,stop):
        old={}; first=True; last=None
        while not stop.is_set():
            sig=[(p,p.stat().st_mtime_ns) for p in sorted(self.d.glob("*.yaml"))]
            if sig!=last:
                last=sig; new={}
                for p,_ in sig:
                    for doc in yaml.safe_load_all(p.read_text()):
                        for o in (doc["items"] if doc and doc["kind"].endswith("List") else [doc]):
                            c=from_plain(o)
                            if c: new[c.key]=c
                from lb.model import Change
                inbox.changed([c for k,c in new.items() if old.get(k)!=c]+[Change(k,None) for k in old if k not in new])
                old=new
                if first: inbox.report(Report("manifests",str(self.d))); inbox.synced(); first=False
            time.sleep(0.01)
