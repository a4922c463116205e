"""What report.py reads, on texts of the kinds that tools print: python3 report_test.py."""
import contextlib
import io
import json
import os
import tempfile
import unittest

import report

WIDE = '''==PROF== Connected to process 1
"ID","Process ID","Kernel Name","gpu__time_duration.sum","dram__bytes_read.sum","dram__bytes_write.sum",\
"l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio",\
"l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_st.ratio",\
"l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum","l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_st.sum",\
"launch__registers_per_thread"
"","","","ns","byte","byte","","","","","register/thread"
"0","1","adam_step_bf16","2,000","1,500","500","4","n/a","7","3","32"
"1","1","head_loss_bf16","9000","100","0","15.9","16","0","0","128"
"2","1","adam_step_bf16","5000","1500","500","4","4","7","3","32"
'''
LONG = '''"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"
"0","adam_step_bf16(float *)","gpu__time_duration.sum","ns","2000"
"0","adam_step_bf16(float *)","dram__bytes_read.sum","byte","1500"
"0","adam_step_bf16(float *)","dram__bytes_write.sum","byte","500"
"0","adam_step_bf16(float *)","launch__registers_per_thread","register/thread","32"
'''
MEMCHECK = "========= Invalid __global__ write of size 4 bytes\n=========     at norm_apply_bf16+0x10\n========= ERROR SUMMARY: 2 errors\n"
FOREIGN = "========= Uninitialized __global__ memory read\n=========     at sm90_xmma_fprop_bf16\n========= ERROR SUMMARY: 1 error\n"
CLEAN = "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n"


class Reads(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)
        os.environ.update(OUT=self.dir.name, KIT=self.dir.name, GPU="NVIDIA H100 80GB", SOFTWARE="")
        report.new()

    def says(self, command, *args):
        """What a command prints, and its exit code."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = command(*args)
        return said.getvalue().strip(), code or 0

    def file(self, name, text):
        path = os.path.join(self.dir.name, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    def summary(self):
        return report.read(report.path("summary.txt"))

    def told(self, rate):
        """A report of picie bench."""
        phases = [{"name": phase, "images_per_s": rate} for phase in report.PHASES]
        ops = [{"op": "adam_step", "floor_us": 1.5}, {"op": "head_loss 2×8", "floor_us": 4.0}, {"op": "head_loss 1×8", "floor_us": 3.0}]
        told = {"device": {"name": "NVIDIA H100"}, "phases": phases, "ops": ops, "peaks": {"copies": [{"bytes": 8e3, "gb_per_s": 90.0}, {"bytes": 5e8, "gb_per_s": 3000.0}]}}
        return self.file("bench.json", json.dumps(told))

    def profiled(self):
        return self.file("profile.json", f"==PROF== done\n{report.read(self.told(100))}\n")

    def bench(self, name, rate, said=""):
        return self.says(report.bench, name, self.told(rate), self.file("bench.err", said))

    def test_both_pages_of_ncu_are_read(self):
        first = {"kernel": "adam_step_bf16", "ns": 2000, "dram_bytes": 2000, "registers": 32}
        wide, long = report.table(WIDE), report.table(LONG)
        self.assertEqual([row["kernel"] for row in wide], ["head_loss_bf16", "adam_step_bf16"])
        for row in (wide[1], long[0]):
            self.assertEqual({name: row[name] for name in first}, first)
        # What ncu could not measure is none, and not nought.
        self.assertEqual((wide[1]["sectors_a_store"], wide[1]["bank_conflicts"], long[0]["bank_conflicts"]), (None, 10, None))
        self.assertEqual(report.table("==ERROR== no such metric\n"), [])

    def test_kernels_stand_beside_floor_and_speed(self):
        said, code = self.says(report.kernels, self.file("kernels.csv", WIDE), self.profiled())
        self.assertEqual((said, code), ("2 kernels in kernels.csv", 1))
        rows = {row["kernel"]: row for row in report.load()["profile"]["kernels"]}
        self.assertEqual((rows["head_loss_bf16"]["floor_us"], rows["adam_step_bf16"]["gb_per_s"]), (4.0, 1.0))
        self.assertIn("a copy moves 3000 GB/s", self.summary())
        self.assertIn(f"{report.path('result.json')} benches/results/{report.load()['date'][:10]}-nvidia-h100-80gb.json", self.summary())
        self.assertEqual(self.says(report.kernels, "/nowhere", "/nowhere"), ("0 kernels in kernels.csv", 1))

    def test_seconds_of_planning_are_found(self):
        said, _ = self.bench("cold", 100, "read images 5 in 1.0 s\nchoose engines     12/78 engines, 2.4 engines/s, 28 s left\nchoose engines     78 engines in 12.5 s, 6.2 engines/s\n")
        self.assertEqual(said, "cold 100.0 images/s, engines chosen in 12.5 s")
        self.assertEqual(self.bench("warm", 100)[0], "warm 100.0 images/s")

    def test_the_peer_is_compared_with_the_warm_run(self):
        self.bench("cold", 10)
        self.bench("warm", 100)
        row = {"images": 100, "kmeans_s": 1, "label_s": 2, "train_s": 4, "epoch_s": 4}
        slow = dict(row, kmeans_s=99, epoch_s=99)
        lines = "a warning\n" + "\n".join(json.dumps(r) for r in (slow, row, row))
        self.assertEqual(self.says(report.peer, "eager", self.file("p.jsonl", lines))[0], "eager 25.0 images/s, picie 4.00 times as fast")
        ratios = next(line for line in self.summary().splitlines() if line.startswith("picie / eager"))
        self.assertEqual(ratios.split()[3:], ["1.00×", "2.00×", "4.00×", "4.00×"])

    def test_the_first_layer_by_cudnn_is_kept(self):
        rows = [{"stem": s, "channels": c, "us": us} for s, c, us in (("forward", 4, 8.2), ("forward", 8, 9), ("weights", 4, 13), ("weights", 8, 12))]
        said = self.says(report.stem, self.file("s.jsonl", "a warning\n" + "\n".join(map(json.dumps, rows))))[0]
        self.assertTrue(said.endswith("forward 8 and 9, weights 13 and 12"), said)

    def test_convolutions_with_the_norm_inside_are_kept(self):
        rows = [{"fused": layer, "kind": kind, "type": act, "norm": norm, "us": us} for layer in ("layer1", "layer2")
                for kind in ("forward", "data") for act, norm, us in (("bf16", False, 3.0), ("f16", False, 4.0), ("f16", True, 5.5))]
        rows[-1]["us"] = None
        said = self.says(report.fused, self.file("f.jsonl", "a warning\n" + "\n".join(map(json.dumps, rows))))[0]
        self.assertTrue(said.endswith("forward 6, 8, 11; data 6, 8, none"), said)

    def test_errors_of_the_sanitizer_count_where_they_are_ours(self):
        for check, text, code in (("memcheck", MEMCHECK, 1), ("initcheck", FOREIGN, 0), ("memcheck", FOREIGN, 1), ("racecheck", CLEAN, 0)):
            said, got = self.says(report.sanitize, check, self.file("log", text))
            self.assertEqual(got, code, said)
        self.assertEqual(self.says(report.sanitize, "initcheck", "/nowhere"), ("initcheck did not end", 1))
        self.assertIn("norm_apply_bf16", self.says(report.sanitize, "memcheck", self.file("log", MEMCHECK))[0])

    def test_the_software_gpu_is_named_aloud(self):
        self.assertNotIn("SOFTWARE", self.summary())
        os.environ["SOFTWARE"] = "no driver"
        report.new()
        report.stage("smoke", "failed", 1500000000, "what went wrong")
        self.assertIn("SOFTWARE GPU: no figure here is a speed. no driver\n", self.summary())
        self.assertIn("smoke        failed          1.5 s  what went wrong\n", self.summary())


if __name__ == "__main__":
    unittest.main()
