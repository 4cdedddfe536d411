"""Would the tests notice?  Builds the core with one mistake at a time; the tests must fail.

Run by `make mutants`, in a copy of the checkout; it takes some twenty minutes.  The exit status
is 1 if a mutant survives or does not compile, or if what it changes is no longer there.  Words
after its name: only the mutants of tests whose path has one of them, as in
`mutants.py shared_machine head`; 1/2 or 2/2: only every second one, as continuous integration does
in turns.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
ISAS = CHECKOUT / "src/cpu/isas.def"
KERNEL_FOLDERS = ("kernels", "simd")  # of src/: what only kernels include
# The tests that must notice; the mistake; what stands in one place in a file of src/; what is put
# there instead.
MUTANTS = {
    "numerics/test_kernels.py": {
        "o through tanh": ("gates + 3 * VL, v_sigmoid(o)", "gates + 3 * VL, v_tanh(o)"),
        "c kept by i": (
            "v_fma(f, load_part(t->before[FL_STATE_C][r] + at, n), v_mul(i, g))",
            "v_fma(i, load_part(t->before[FL_STATE_C][r] + at, n), v_mul(i, g))",
        ),
        "h without tanh": ("v_mul(o, v_tanh(c))", "v_mul(o, c)"),
        "gates i and f swapped": (
            "column = slot * width + lane;\n                put(",
            "column = (slot < 2 ? !slot : slot) * width + lane;\n                put(",
        ),
        "bias_hh dropped": ("in : in + b_hh[of_h * s->hidden + unit]", "in : in"),
        "x one step late": (
            "of->x[i] = p->x.data ? source_at(&p->x, t, b)",
            "of->x[i] = p->x.data ? source_at(&p->x, t - (t > 0), b)",
        ),
        "h_0 is c_0": (
            "first ? p->h + b * p->out_size : s",
            "first ? p->states[FL_STATE_C] + b * p->hidden : s",
        ),
        "only the last block of a sum": ("v_add(v_load(sums[r] + j * VL), acc[r][j])", "acc[r][j]"),
        "h_0 is c_0, backward": (
            "memcpy(t.h0 + b * p->out_size, p->h + b * p->out_size,",
            "memcpy(t.h0 + b * p->out_size, p->states[FL_STATE_C] + b * p->hidden,",
        ),
        "gradient of f": ("through_sigmoid(v_mul(dc, c_before)", "through_sigmoid(v_mul(dc, g)"),
        "gradient of c": ("[r] + at, v_mul(dc, f), n)", "[r] + at, dc, n)"),
        "gradient of h_n": ("dy + go_on, dh + go_on, tile", "dy + go_on, NULL, tile"),
        "gradient of x": (".add_dx = d == 1", ".add_dx = 0"),
        "gradient of W": ("terms->n = i;", "terms->n = i - (i == FL_TERMS);"),
    },
    "numerics/test_contract.py": {
        "one row not fused": (
            "acc[r][j] = v_fma(x[r], w, acc[r][j])",
            "acc[r][j] = rows == 1 ? v_add(v_mul(x[r], w), acc[r][j]) : v_fma(x[r], w, acc[r][j])",
        ),
        "rows of all workers in one place": ("at += worker * call->plan.rows_worker;", ""),
        "sums by threads": (
            "minimum(segment_of(shard_rows(call)), call->steps)",
            "minimum(segment_of(shard_rows(call)) / call->plan.team.workers + 1, call->steps)",
        ),
    },
    "layers/test_dropout.py": {
        "dropout not scaled": ("in[i] * scale", "in[i]"),
        "dropout alike in all layers": ("(uint64_t)(stream + 1)", "1"),
    },
    "numerics/test_vmath.py": {
        "log sigmoid with a term less": ("LOG1P_R, LOG1P_DEGREE)", "LOG1P_R, LOG1P_DEGREE - 1)"),
        "tanh saturates early": ("v_set1(TANH_MAX)", "v_set1(5)"),
        "exp with a term less": ("EXP_P, EXP_DEGREE)", "EXP_P, EXP_DEGREE - 1)"),
    },
    "package/test_shared_machine.py": {
        "z of all workers in one place": ("? 0 : worker * call->plan.z_worker", "? 0 : 0"),
        "no meeting after the projection ahead": (
            "fl_next(&work, &at);) {\n        for (ptrdiff_t block = at.units.begin; block < "
            "at.units.end; block++) {\n            project_block",
            "work.last.kind++ == 0 && (at.share = at.units = fl_part(p->blocks, me->team->workers, "
            "me->team->number), 1);) {\n        for (ptrdiff_t block = at.units.begin; block < "
            "at.units.end; block++) {\n            project_block",
        ),
        "no meeting when dz are there": ("fl_meet(team); /* all dz", "/* all dz"),
        "workers leave at different turns": ("w->turn > stop", "w->turn > stop + w->worker"),
        "a piece begun by two": (
            "return atomic_compare_exchange_strong_explicit(&me->team->shares[owner].taken, seen,"
            " next,\n                                                   memory_order_relaxed,"
            " memory_order_relaxed);",
            "return atomic_store(&me->team->shares[owner].taken, next), 1;",
        ),
        "nobody is woken": ("        fl_wake(arrivals);\n", ""),
    },
    "layers/test_checkpoint.py": {
        "edge between segments": (
            "going_on = active_rows(&p->when, &me->rows, p->when.steps, 0)",
            "(void)me",
        ),
        "dropout by segment": ("call->batch, call->first_step + time, b)", "call->batch, time, b)"),
        "sums by segment": ("(p->first_step + s0) / segment", "s0 / segment"),
    },
    "layers/test_embedding.py": {
        "sum of recent tokens lost": (
            "        settle_tokens(&p->sums, p->k, columns);\n        for",
            "        for",
        ),
        "token of the row before": (
            "of->token[i] = p->x.tokens[t * p->x.step + b]",
            "of->token[i] = p->x.tokens[t * p->x.step]",
        ),
    },
    "training/test_head.py": {
        "logits not shifted": (
            "v_sub(v_load(p + j + i * VL), v_set1(top))",
            "v_load(p + j + i * VL)",
        ),
        "target's gradient": ("p[t->targets[r]] -= t->scales[r]", "p[t->targets[r]] -= 0"),
        "classes that are none": ("of_class : -(real)INFINITY", "of_class : -1"),
        "gradient of the head's bias": ("classes.end - classes.begin, rows", "0, rows"),
        "rows of the head": ("losses[of->rows[i]] = (real)(log", "losses[i] = (real)(log"),
    },
    "heads/test_crf.py": {
        "rows without a path": ("top == -(real)INFINITY ? 0 : top, out", "top, out"),
        "a chain of maxima": ("v_max(best[2], best[3])", "best[2]"),
        "sums that lack something": (
            "a[j] = (real)crf_exact(g, r, t, j, g->tape->weights) + e[j];",
            "",
        ),
        "gradients of sums that lack something": ("rest[i] += part;", ""),
        "transitions of sums that lack something": (
            "g->grads[i * tags + j] += part;",
            "(void)part;",
        ),
        "groups of rows that end": ("g->length[n - 1] <= t", "g->length[n - 1] < t"),
        "a row of a group that is left out": (
            "FL_CRF_ROWS, call->batch - first",
            "5, call->batch - first",
        ),
        "the first groups of a run": ("groups * (run + 1) / runs", "groups * run / runs + 1"),
        "the largest of a column": ("largest[j] + e[j]", "e[j]"),
    },
    "heads/test_ctc.py": {
        "a not-a-number that a maximum loses": ("return blank == blank;", "return 1;"),
        "no skips": ("skips ? 0 : FL_LOG_ZERO", "FL_LOG_ZERO"),
        "skips between equal symbols": (
            "n > 0 && r->target[n] != r->target[n - 1]",
            "n > 0",
        ),
        "skips backward": ("part_from(skipping, ", "part_from(a, "),
        "a third way into a state": ("v_exp(v_sub(other, top))", "v_set1(0)"),
        "shifts that are forgotten": ("shifted += (double)shift", "shifted += 0"),
        "edges of the states": ("lse[r->padded] = lse[r->padded + 1] = 0;", ""),
        "log y below all": ("log_y < FL_LOG_ZERO ? FL_LOG_ZERO : log_y", "log_y"),
        "the logarithm of a sum": ("v_add(top, v_log(sum))", "top"),
    },
    "training/test_head_losses.py": {
        "weights of predictions": ("weights ? (double)weights[row] : 1", "1"),
        "first row of a shard": ("/ rows * call->batch + begin +", "/ rows * call->batch +"),
        "squares that are not halved": (
            "losses[of->rows[i]] = sum / 2;",
            "losses[of->rows[i]] = sum;",
        ),
    },
    "heads/test_linear.py": {
        "outputs in the rows of a piece": ("call->z_out + rows[i] * call->classes", "call->z_out"),
        "gradients of the rows of a piece": ("call->z + rows[i] * classes", "call->z"),
        "a bias where there is none": ("v < classes ? bias[v] : 0", "v < classes ? bias[v] : 1"),
        "dW only with dx": (
            "return call->dweight ? divide_up",
            "return call->dy ? divide_up",
        ),
    },
    "heads/test_losses.py": {
        "predictions without weight": ("if (of->scales[i] == 0)", "if (of->scales[i] == -1)"),
        "given classes that are none": ("+ v] = -(real)INFINITY", "+ v] = 0"),
        "no gradient where there is no layer": ("= call->z_out || call->dy", "= call->dy"),
    },
    "layers/test_shards.py": {
        "random choices by the row of the call": ("+ dropout->first_row + b;", "+ b;"),
        "segments by the rows of the call": (
            "segment_of(shard_rows(call))",
            "segment_of(call->batch)",
        ),
        "a row of the next shard": ("row < rows.end) {", "row <= rows.end) {"),
        "one table for all shards": ("i * p->sums.count * p->dx.step", "0"),
        "dx with an empty shard": ("with_dx &= !shard_gradients", "with_dx = 0 & shard_gradients"),
    },
    "layers/test_cells.py": {
        "update gate of a GRU": (
            "next = v_tanh(v_fma(reset, of_h, of_x))",
            "next = v_tanh(v_fma(update, of_h, of_x))",
        ),
        "reset gate's part of n": (
            "3 * t->gate_step, v_mul(dn, reset), n",
            "3 * t->gate_step, dn, n",
        ),
        "h past the gates of a GRU": (
            "v_mul(dn, reset), n);\n            store_part(t->d_states[FL_STATE_C][r] + at, "
            "v_mul(dh, update), n)",
            "v_mul(dn, reset), n)",
        ),
        "slope of max(0, x)": ("v_mul(dh, positive(h))", "dh"),
        "rows of a GRU's U": ("slot == last + of_u ? last", "slot == last ? last"),
        "h instead of r * h": (
            "v_mul(reset, load_part(t->before[FL_STATE_C][r] + at, n))",
            "load_part(t->before[FL_STATE_C][r] + at, n)",
        ),
        "h past r * h": (
            "v_fma(d, reset, load_part(t->d_states[FL_STATE_C][r] + at, n))",
            "load_part(t->d_states[FL_STATE_C][r] + at, n)",
        ),
    },
    "numerics/test_low_bits.py": {
        "what offsets add to sums": ("(uint32_t)(to->kernels->byte_offset * (int)value)", "0"),
        "scale of the first row": ("v_set1(term->q.scales[r])", "v_set1(term->q.scales[0])"),
        "scale of the first panel": ("v_load(of_w + (j / 4) * group", "v_load(of_w"),
        "bytes of x for h": ("at->i, p->cell.u, block", "at->i, p->cell.w, block"),
        "scales of W for U": ("scales + scale.u", "scales + scale.w"),
        "a float16 too small": ("magnitude * 0x1p24f", "0"),
        "r * h not in bytes": ("p->k->quantize(rows, p->hidden, inputs, &p->bytes.second);", ""),
    },
    "layers/test_quantize.py": {
        "bytes of all workers in one place": (
            "bytes_from(&all, worker * rows)",
            "bytes_from(&all, 0 * worker)",
        ),
        "a table's rows not in bytes": ("p->k->quantize(tile, p->input, x, &p->bytes.x);", ""),
        "a row of the unit matrix": ("(FL_INT8_HEAD + row / 4)", "(FL_INT8_HEAD + row / 8)"),
        "bytes ahead of the first row": (
            "bytes_from(&p->bytes.ahead, done)",
            "bytes_from(&p->bytes.ahead, 0)",
        ),
    },
    "layers/test_options.py": {
        "peepholes i and f swapped": (
            "slot < 2 ? slot : slot == 3 ? 2",
            "slot < 2 ? !slot : slot == 3 ? 2",
        ),
        "peephole of o on the state before": (
            "v_fma(v_load(peephole), c, v_load(gates + OUT * VL))",
            "v_fma(v_load(peephole), load_part(t->before[FL_STATE_C][r] + j * VL, "
            "t->units - j * VL), v_load(gates + OUT * VL))",
        ),
        "gradient past a clip": (
            "v_where_greater(v_set1(bound), v_abs(x), d)",
            "(void)x, (void)bound, d",
        ),
        "norm of a gradient": (
            "v_fnma(normed, along[slot],",
            "v_fnma(v_set1(0), along[slot],",
        ),
        "epsilon of the norm": ("variance + p->norm_eps", "variance + (real)1e-5"),
        "gain as shift": (
            "pack_units(s, gate_part, p + from->gain",
            "pack_units(s, gate_part, p + from->b_ih",
        ),
        "coupled by f": ("v_sub(k.g, k.c_before)", "k.g"),
        "zoneout of what passes by": ("p->k->multiply(1, n, &keep, &dh, &by)", "(void)by"),
        "zoneout of c": ("later = v_sub(later, stays)", "stays = v_set1(0)"),
        "mask of recurrent dropout": (
            "p->tape.recurrent_mask ? terms->recurrent_mask : NULL",
            "NULL",
        ),
        "projection of the step before": (
            "second_is_candidate(s) ? p->du + p->at.second * s->hidden",
            "1 ? p->du",
        ),
        "function of the cell state": (
            "function_of(&p->of_cell, c)",
            "function_of(&p->of_candidate, c)",
        ),
    },
    "layers/test_slstm.py": {
        "i and f swapped": (
            "vec i = v_loadu(a), f = v_loadu(a + width)",
            "vec f = v_loadu(a), i = v_loadu(a + width)",
        ),
        "z and o swapped": (
            "vec z = v_loadu(a + 2 * width), o = v_loadu(a + 3 * width)",
            "vec o = v_loadu(a + 2 * width), z = v_loadu(a + 3 * width)",
        ),
        "n for c": ("v_div(c, normalizer)", "v_div(normalizer, c)"),
        "m not used": (
            "v_add(load_part(t->before[FL_STATE_M][r] + at, n), v_load(gates + SLSTM_F * VL))",
            "v_load(gates + SLSTM_F * VL)",
        ),
        "m is a_i": ("v_select_greater(more, zero, kept, a_i)", "a_i"),
        "zero normalizers not asked for": ("v_where_greater(v_abs(n_before), zero, more)", "more"),
        "gradient of f at its bound": (
            "v_where_greater(one, f, d_log_f)",
            "d_log_f",
        ),
        "gradient of m lost": ("v_sub(dm, d_log_f)", "v_sub(zero, d_log_f)"),
        "gradient of m kept lost": ("v_sub(dm, d_log_i)", "v_sub(zero, d_log_i)"),
        "gradient of n through h": (
            "v_fnma(through_h, mean, load_part(t->d_states[FL_STATE_N][r] + at, units))",
            "load_part(t->d_states[FL_STATE_N][r] + at, units)",
        ),
        "slope of the forget gate": ("v_mul(d_kept, slope)", "d_kept"),
        "n after is n before": (
            "load_part(t->after[FL_STATE_N]",
            "load_part(t->before[FL_STATE_N]",
        ),
        "gradients past a reset": (
            "for (int i = FL_STATE_C; t->reset[r] && i < t->state_count; i++)",
            "for (int i = FL_STATE_C; t->reset[r] && i < FL_STATE_N; i++)",
        ),
        "head read from its neighbour": (
            "of_rows.h_before[at->i + r] + unit",
            "of_rows.h_before[at->i + r] + (unit + p->head_size) % p->out_size",
        ),
        "panel of another head": ("p->cell.u, at->block + head,", "p->cell.u, at->block,"),
        "lanes of one head for all": (
            "copy_units(p, at, units_of_head(p->head_size, head, units), local, z, z_row)",
            "copy_units(p, at, units, local, z, z_row)",
        ),
        "head backward": ("slot * p->hidden + head * k", "slot * p->hidden"),
        "columns of a shared vector backward": (
            "begin > first || (end % lanes > 0 && units.end < columns.end)",
            "0",
        ),
        "head of a weight gradient": (
            "own.begin % size);",
            "0);",
        ),
        "tiles across heads": (
            "columns.end = minimum(end, (columns.begin / size + 1) * size);",
            "columns.end = end;",
        ),
        "b_hh of a cell without": (
            "return s->bias && fl_cells[s->cell].biases == 2",
            "return s->bias",
        ),
    },
}


def shell(command: list[str], folder: Path) -> str:
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise RuntimeError(f"{shlex.join(command)}\n{run.stdout}{run.stderr}")
    return run.stdout


class Copy:
    """A copy of the checkout, built once; a mutant then needs a few files compiled again.

    Kernels are mutated for the best instruction set of floats, which the tests then use.  One that
    only has other products of bytes runs unchanged kernels: only changes of the driver show there.
    """

    def __init__(self, folder: Path) -> None:
        # Not beside the tests, where conftest.py would take it for a checkout and pass it by.
        self.folder, self.tests = folder / "package", folder / "tests"
        without = shutil.ignore_patterns("*.so")
        shutil.copytree(CHECKOUT / "tests", self.tests)
        shutil.copytree(CHECKOUT / "src", self.folder / "src")
        for name in ("src/cpu", "benchmarks"):  # isas.def and busy processes, for the tests
            shutil.copytree(CHECKOUT / name, folder / name)
        shutil.copytree(CHECKOUT / "fastlstm", self.folder / "fastlstm", ignore=without)
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(CHECKOUT / name, self.folder)
        output = shell([sys.executable, "setup.py", "build_ext", "--inplace"], self.folder)
        lines = [shlex.split(line) for line in output.splitlines() if " -o " in line]
        self.compilers = {line[line.index("-c") + 1]: line for line in lines if "-c" in line}
        [core] = (self.folder / "fastlstm/_core").glob("library*.so")
        links = [line for line in lines if "-shared" in line]
        [self.link] = [line for line in links if Path(line[line.index("-o") + 1]).name == core.name]
        self.link[self.link.index("-o") + 1] = str(core)
        show = "import fastlstm; print(*fastlstm.isas())"
        isas = shell([sys.executable, "-c", show], self.folder).split()
        of_floats = re.findall(r"^FL_ISA\((\w+),[^)]*, \1\)", ISAS.read_text(), re.MULTILINE)
        self.isa = next(name for name in isas if name in of_floats)
        self.others = isas[isas.index(self.isa) + 1 :]

    def compilers_of(self, path: Path) -> list[list[str]]:
        """What compiles a file, or what includes it, for the best vectors."""
        name = path.relative_to(self.folder)
        part = f"/isa/{self.isa}_" if name.parts[1] in KERNEL_FOLDERS else "/driver/driver_"
        part = str(name) if path.suffix == ".c" else part
        return [line for source, line in self.compilers.items() if part in source]

    def build(self, compilers: list[list[str]]) -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda line: shell(line, self.folder), compilers))
        shell(self.link, self.folder)

    def fails(self, *tests: str) -> bool:
        """Whether one of these tests fails, crashes or hangs."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        command += ["-k", " and ".join(f"not {isa}" for isa in self.others)]
        run = subprocess.run(
            ["timeout", "240", *command],
            cwd=self.tests,
            env=os.environ | {"PYTHONPATH": str(self.folder), "FASTLSTM_ISA": self.isa},
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode in (2, 3, 4, 5):  # pytest could not do its work
            raise RuntimeError(run.stdout + run.stderr)
        self.output = run.stdout
        return run.returncode != 0

    def dies(self, tests: str, old: str, new: str) -> bool:
        """Whether `tests` notice that `old` became `new`."""
        files = {path: path.read_text() for path in (self.folder / "src").rglob("*.[ch]")}
        places = [path for path, text in files.items() for _ in range(text.count(old))]
        if len(places) != 1:
            raise RuntimeError(f"{old!r} stands in {len(places)} places of src/")
        [file] = places
        compilers = self.compilers_of(file)
        objects = [self.folder / line[line.index("-o") + 1] for line in compilers]
        before = {path: path.read_bytes() for path in objects}
        file.write_text(files[file].replace(old, new))
        try:
            self.build(compilers)
            return self.fails(tests)
        finally:
            file.write_text(files[file])
            for path, content in before.items():
                path.write_bytes(content)


def chosen_by(words: list[str]) -> dict[str, dict[str, tuple[str, str]]]:
    """The mutants that are asked for, by their tests."""
    parts = [word for word in words if re.fullmatch(r"\d+/\d+", word)]
    names = [word for word in words if word not in parts] or [""]
    part, of = map(int, parts[0].split("/")) if parts else (1, 1)
    chosen: dict[str, dict[str, tuple[str, str]]] = {}
    number = 0
    for tests, mutants in MUTANTS.items():
        for mistake, change in mutants.items():
            if any(name in tests for name in names):
                if number % of == part - 1:
                    chosen.setdefault(tests, {})[mistake] = change
                number += 1
    return chosen


def main() -> int:
    os.environ.pop("FASTLSTM_WERROR", None)  # a mutant may leave a variable unused
    chosen = chosen_by(sys.argv[1:])
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder))
        if copy.fails(*chosen):
            sys.exit(f"the tests fail without any mutant\n{copy.output}")
        for tests, mutants in chosen.items():
            for mistake, (old, new) in mutants.items():
                try:
                    ended = "died" if copy.dies(tests, old, new) else "SURVIVED"
                except RuntimeError as error:  # the others go on
                    ended = f"{error}\nBROKEN"
                survivors += ended != "died"
                print(f"{ended:9}{mistake}", flush=True)
    count = sum(len(mutants) for mutants in chosen.values())
    print(f"{count - survivors} of {count} mutants died")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
