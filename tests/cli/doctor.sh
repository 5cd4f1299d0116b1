# The doctor: its JSON is one object with what is promised, its numbers are the kernel's, and it changes nothing.
. "$(dirname "$0")/lib.bash"

facts() {
	cat /proc/sys/vm/nr_hugepages /sys/kernel/mm/transparent_hugepage/shmem_enabled \
		/sys/kernel/mm/hugepages/*/nr_hugepages /sys/kernel/mm/hugepages/*/nr_overcommit_hugepages 2>/dev/null
	ulimit -a
}

before=$(facts)
what="doctor"
run doctor
expect_status 0
[ -s "$scratch/out" ] || fail "no text"
for word in "huge pages" NUMA memlock io_uring membarrier THP; do
	grep -q "$word" "$scratch/out" || fail "the text says nothing of $word"
done

what="doctor --json"
run doctor --json
expect_status 0
[ ! -s "$scratch/err" ] || fail "complaint: $(cat "$scratch/err")"
[ "$before" = "$(facts)" ] || fail "the doctor changed something"
command -v python3 >/dev/null || skip "python3 is missing, so only the text was looked at"
python3 -m json.tool <"$scratch/out" >/dev/null || fail "no valid JSON"
python3 - "$scratch/out" <<'PYTHON' || fail "the JSON is not as promised"
import json, os, sys

report = json.load(open(sys.argv[1]))
for key, kind in {"page_sizes": list, "nodes": list, "kernel": dict, "limits": dict, "thp": dict, "io_uring": dict,
                  "cgroup": dict, "membarrier": dict, "numa": dict, "problems": list}.items():
    assert isinstance(report.get(key), kind), key
assert report["kernel"]["release"] == os.uname().release
assert report["nodes"], "at least one node"
for node in report["nodes"]:
    assert isinstance(node["node"], int) and "memory_total" in node and isinstance(node["cpus"], str)
root = "/sys/kernel/mm/hugepages"
sizes = os.listdir(root) if os.path.isdir(root) else []
assert len(report["page_sizes"]) == len(sizes)
for size in report["page_sizes"]:
    folder = "%s/hugepages-%dkB/" % (root, size["size"] // 1024)
    assert size["total"] == int(open(folder + "nr_hugepages").read())
    for key in ("free", "reserved", "surplus"):
        assert isinstance(size[key], int), key
    for node in size["nodes"]:
        for key in ("node", "total", "free", "surplus"):
            assert isinstance(node[key], int), key
for problem in report["problems"]:
    assert problem["problem"] and "cure" in problem
two = [size for size in report["page_sizes"] if size["size"] == 2 << 20]
if two and two[0]["total"] == 0 and two[0]["overcommit"] == 0:
    assert any("nr_hugepages" in problem["cure"] for problem in report["problems"]), "no huge pages, and no cure"
PYTHON
echo passed
