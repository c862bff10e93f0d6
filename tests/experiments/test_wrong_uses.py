"""Every wrong use of a command line ends with exit code 2 and one sentence on standard error."""

import os
import subprocess
import sys

import forks
import pytest
from told_models import told_config

from configs import ablation_faces, classifier_mnist, tiny
from vae_jax.config import to_json

ROOT = forks.ROOT
COMMANDS = sorted(
    ".".join(path.relative_to(ROOT / "experiments").with_suffix("").parts)
    for path in (ROOT / "experiments").rglob("*.py")
    if "app.run(main)" in path.read_text("utf-8")
)

TINY = "--config=configs/tiny.py"
WORKDIR = "--workdir={home}/run"
CONFIGS = {
    "syntax.py": "def get_config(:\n",
    "nothing.py": "x = 1\n",
    "raises.py": "def get_config():\n    return 1 / 0\n",
    "imports.py": "import no_such_module\n",
    "leaves.py": "import sys\nsys.exit(0)\n",
    "other.py": "def get_config():\n    return {}\n",
    "binary.py": "\0\1",
    "argument.py": "def get_config(name):\n    return name\n",
}
# What lies in a folder of the same name.
KINDS = {
    "tiny": tiny.get_config(),
    "sweep": ablation_faces.get_config(),
    "classifier": classifier_mnist.get_config(),
    "told": told_config(),
}
# command, arguments, what the sentence says
WRONG_USES = [
    ("train", [WORKDIR], "--config is missing"),
    ("train", [], "--config and --workdir are missing"),
    ("train", ["--config=configs/tinny.py", WORKDIR], "did you mean --config=configs/tiny.py?"),
    ("train", ["--config=tiny", WORKDIR], "did you mean --config=configs/tiny.py?"),
    ("train", ["--config=configs/tiny", WORKDIR], "did you mean --config=configs/tiny.py?"),
    ("train", ["--config=configs", WORKDIR], "is not a file"),
    ("train", ["--config=/dev/zero", WORKDIR], "is not a file"),
    ("train", ["--config={home}/syntax.py", WORKDIR], "line 1 is not Python"),
    ("train", ["--config={home}/binary.py", WORKDIR], "null bytes"),
    ("train", ["--config={home}/nothing.py", WORKDIR], "has no function get_config()"),
    ("train", ["--config={home}/raises.py", WORKDIR], "line 2 fails with ZeroDivisionError"),
    ("train", ["--config={home}/imports.py", WORKDIR], "line 1 fails with ModuleNotFoundError"),
    ("train", ["--config={home}/leaves.py", WORKDIR], "line 2 fails with SystemExit"),
    ("train", ["--config={home}/other.py", WORKDIR], "must return ConfigDict"),
    ("train", ["--config={home}/argument.py", WORKDIR], "fails with TypeError"),
    ("train", [TINY, WORKDIR, "--config.model.zdim=3"], "did you mean config.model.z_dim?"),
    ("train", [TINY, WORKDIR, "--config.z_dim=3"], "did you mean config.model.z_dim?"),
    ("train", [TINY, WORKDIR, "--config.model=3"], "config.model is a section of fields"),
    ("train", [TINY, WORKDIR, "--config.model.z_dim"], "needs a value"),
    ("train", [TINY, WORKDIR, "--config.model.z_dim", "3"], "argument '3' is no flag"),
    ("train", [TINY, WORKDIR, "--config.model.z_dim=3.5"], "must be a whole number"),
    ("train", [TINY, WORKDIR, "--config.model.remat=maybe"], "must be true or false"),
    ("train", [TINY, WORKDIR, "--config.loss.kl_weight=much"], "must be a number"),
    ("train", [TINY, WORKDIR, "--config.model.encoder.filters=8"], "must be a tuple such as"),
    ("train", [TINY, WORKDIR, "--config.train.epochs=-5"], "config.train.epochs is -5"),
    ("train", [TINY, WORKDIR, "--config.seed=" + "9" * 5000], "config.seed is '99"),
    ("train", [TINY, WORKDIR, "--config.model.encoder.kernel_sizes=(100,100)"], "only 16x16"),
    ("train", ["--config=configs/ablation_faces.py", WORKDIR], "experiments.ablation"),
    ("ablation", ["--config=configs/ablation_faces.py", WORKDIR, "--config.sweep.kl_weight=0.5"],
     "with a comma after a single value"),
    ("train", [TINY, WORKDIR, "--coordinator=nowhere.invalid:1", "--processes=2",
               "--process_id=1"], "no such host"),
    ("train", [TINY, WORKDIR, "--coordinator=127.0.0.1:9", "--processes=2", "--process_id=1",
               "--coordinator_seconds=1"], "the other processes did not answer within 1 s"),
    ("train", [TINY, WORKDIR, "--coordinator=here", "--processes=2", "--process_id=1"],
     "must be HOST:PORT"),
    ("sample", [WORKDIR, "--sharpen", "false"], "argument 'false' is no flag"),
    ("sample", [WORKDIR, "--seed=4294967296"], "from 0 to 4,294,967,295"),
    ("sample", [WORKDIR, "--count=1e12"], "must be a whole number"),
    ("sample", [WORKDIR, "--count=1000000000000"], "from 1 to"),
    ("sample", [WORKDIR, "--count=" + "9" * 5000], "from 1 to"),
    ("sample", [WORKDIR, "--columns=100000000"], "from 1 to 1,000"),
    ("sample", [WORKDIR, "--nosharpen=1"], "does not take an argument"),
    ("sample", [WORKDIR, "--out"], "--out needs a value"),
    ("sample", [WORKDIR, "--out={home}"], "it is a folder"),
    ("sample", [WORKDIR, "--out=/dev/null"], "not a regular file"),
    ("sample", [WORKDIR, "--out={home}/syntax.py/samples.png"], "a file, not a folder"),
    ("sample", [WORKDIR, "--out=a.npy", "--latents=./a.npy"], "both name"),
    ("sample", [WORKDIR, "--latents_in=z.npy", "--seed=3"], "leave out --count and --seed"),
    ("sample", [WORKDIR, "--latents_in=z.npy", "--count=3"], "leave out --count and --seed"),
    ("sample", [WORKDIR], "is not a run folder"),
    ("sample", ["--workdir={home}/syntax.py"], "is not a run folder"),
    ("export", [WORKDIR, "--out={home}/syntax.py"], "is a file, but names a folder"),
    ("sample", [WORKDIR, "--config.seed=1"], "this command reads no config"),
    ("sample", ["--workdir={home}/tiny", "--kl_weight=1"], "was trained with kl_weight 3 and"),
    ("encode", ["--workdir={home}/tiny", "--images=.", "--z_dim=2"], "trained with z_dim 4 and"),
    ("evaluate", ["--workdir={home}/told", "--kl_weight=11"], "for kl_weight 0.1 to 10 and"),
    ("export", ["--workdir={home}/told", "--z_dim=5"], "for z_dim 1 to 4 and answers for no"),
    ("latent_space", ["--workdir={home}/told", "--kl_weight=0"], "for kl_weight 0.1 to 10"),
    ("random_latents", ["--workdir={home}/told", "--z_dim=0"], "for z_dim 1 to 4"),
    ("sample", [WORKDIR, "--z_dim=2.5"], "must be a whole number"),
    ("ablation", ["--config=configs/ablation_faces.py", WORKDIR, "--config.told.z_dim=(2, 64)"],
     "config.told"),
    ("latent_space", [WORKDIR, "--strength=nan"], "must be finite"),
    ("latent_space", ["--workdir={home}/tiny"], "holds no checkpoint yet; train it first"),
    ("train", [TINY, "--workdir={home}/sweep"], "holds a sweep, but a run is needed"),
    ("train", [TINY, "--workdir={home}/syntax.py"], "a file of this name is in its place"),
    ("train", [TINY, "--workdir="], "--workdir is empty"),
    ("train", [TINY, WORKDIR, "--config.data.path="], "config.data.path is empty"),
    ("sample", [WORKDIR, "--out={home}/circle"], "symbolic links lead in a circle"),
    ("train_classifier", [TINY, WORKDIR], "no section `classifier`"),
    ("train_classifier", ["--config=configs/classifier_mnist.py", "--workdir={home}/tiny"],
     "holds a run, but a classifier is needed"),
    ("ablation", ["--config=configs/ablation_faces.py", "--workdir={home}/tiny"],
     "holds a run, but a sweep is needed"),
    ("ablation", [TINY, WORKDIR], "no section `sweep`"),
    ("sample", ["--workdir={home}/sweep"], "name one of its runs, {home}/sweep/members/NAME"),
    ("evaluate", ["--workdir={home}/classifier"], "holds a classifier, but a run is needed"),
    ("evaluate", [WORKDIR, "--data="], "--data is empty"),
    ("filters", ["--workdir={home}/sweep", "--layer=conv_0"], "holds a sweep, but a run"),
    ("filters", [WORKDIR, "--layer=conv_0", "--seeds=1000000"], "from 2 to 100"),
    ("filters", [WORKDIR, "--layer=conv_0", "--steps=1000000000"], "from 1 to 100,000"),
    ("filters", [WORKDIR, "--layer=conv_0", "--epsilon=0"], "a number from"),
    ("export", ["--workdir={home}/broken"], "is not valid JSON"),
    ("explore", ["--workdir={home}/sweep"], "holds a sweep, but a run is needed"),
    ("explore", ["--workdir={home}/tiny"], "holds no checkpoint yet; train it first"),
    ("explore", ["--workdir={home}/told", "--z_dim=5"], "for z_dim 1 to 4 and answers for no"),
    ("explore", [WORKDIR, "--out={home}"], "it is a folder"),
    ("explore", [WORKDIR, "--count=-1"], "from 0 to"),
    ("encode", [WORKDIR], "--images is missing"),
    ("encode", [WORKDIR, "--images=."], "is not a run folder"),
    ("restore", [WORKDIR, "--count=-1"], "from 0 to"),
    ("conditional", [WORKDIR, "--columns=1e6"], "must be a whole number"),
    ("fit_prior", [WORKDIR], "--kind is missing"),
    ("fit_prior", [WORKDIR, "--kind=grand"], "one of gaussian, mixture, two_stage, flow"),
    ("fit_prior", [WORKDIR, "--kind=flow", "--name=normal"], "--name is 'normal', but the name"),
    ("fit_prior", ["--workdir={home}/sweep", "--kind=flow"], "holds a sweep, but a run"),
    ("sample", [WORKDIR, "--prior="], "--prior is empty"),
    ("sample", [WORKDIR, "--temperature=-1"], "a number from 0.0 to 100.0"),
    ("sample", [WORKDIR, "--latents_in=z.npy", "--prior=flow"], "leave out --count and --seed"),
    ("priors", [WORKDIR], "is not a run folder"),
    ("priors", [WORKDIR, "--seeds=0"], "from 1 to 100"),
    ("ablation", ["--config=configs/ablation_faces.py", WORKDIR, "--priors=grand"],
     "--priors has 'grand'; valid are gaussian, mixture, two_stage, flow"),
    ("plane", ["--workdir=a", "--workdir=b"], "--out=FOLDER"),
    ("plane", [WORKDIR, "--kl_weights=some"], "must be numbers with commas"),
    ("random_latents", ["--workdir=a", "--workdir=b"], "--out=FOLDER"),
    ("report", ["--workdir={home}/sweep", "--out={home}/report"], "no ablation/results.json"),
    ("import_keras", [WORKDIR], "--encoder and --decoder are missing"),
    ("import_keras", [WORKDIR, "--encoder=e", "--decoder=d"], "--config is missing"),
    ("import_keras", [TINY, WORKDIR, "--encoder=e.h5", "--decoder=d.h5"], "e.h5"),
    ("prepare_celeba", ["--source={home}/none", "--out={home}/a"], "does not exist"),
    ("prepare_celeba", ["--source={home}/syntax.py", "--out={home}/a"], "zip"),
    ("kl_weight", ["--convention=nobody"], "nobody"),
    ("kl_weight", ["--convention=sum", "--image_shape=3,3"], "three whole numbers"),
    ("reference_tables", ["--seeds=one"], "not a list of seeds"),
    ("reference_tables", ["--data={home}/none", "--workdir={home}/tables"], "does not exist"),
    ("speed.__main__", [], "needs --config"),
    ("speed.__main__", ["--against=numpy"], "--against=numpy is unknown"),
    ("speed.__main__", ["--what=prepare", "--json=/dev/null"], "not a regular file"),
]  # fmt: skip
EVERYWHERE = {
    "--wrokdir=x": "--wrokdir is not a flag of this command",
    "--traceback=perhaps": "must be true or false",
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Exit code, standard output and standard error of every case and of every --help."""
    home = tmp_path_factory.mktemp("wrong")
    for name, text in CONFIGS.items():
        (home / name).write_text(text)
    for name, config in KINDS.items():
        (home / name).mkdir()
        (home / name / "config.json").write_text(to_json(config))
    (home / "circle").symlink_to("circle")
    (home / "broken").mkdir()
    (home / "broken" / "config.json").write_text("{")
    cases = [(name, arguments) for name, arguments, _ in WRONG_USES]
    cases += [(name, [flag]) for name in COMMANDS for flag in ("--help", *EVERYWHERE)]
    outcomes = {}
    for name, arguments in cases:
        given = [text.format(home=home) for text in arguments]
        done = forks.run("-m", f"experiments.{name}", *given)
        printed = (text.replace(str(home), "{home}") for text in (done.stdout, done.stderr))
        outcomes[name, *arguments] = done.returncode, *printed
    return outcomes


@pytest.mark.parametrize(("name", "arguments", "text"), WRONG_USES)
def test_a_wrong_use_is_told_in_one_sentence(outcomes, name, arguments, text):
    check(outcomes[name, *arguments], text)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("flag", EVERYWHERE)
def test_wrong_flags_are_told_by_every_command(outcomes, name, flag):
    check(outcomes[name, flag], EVERYWHERE[flag])


def check(outcome, text):
    code, output, error = outcome
    assert code == 2 and not output, error
    (line,) = error.splitlines()
    assert line.startswith("error: ") and text in line and len(line) < 400
    assert not line.endswith(".")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_lists_every_flag(outcomes, name):
    code, output, error = outcomes[name, "--help"]
    assert code == 0 and not error
    module = f"experiments.{name}".removesuffix(".__main__")
    assert module in output and "  --compilation_cache" in output
    source = (ROOT / "experiments" / f"{name.replace('.', '/')}.py").read_text()
    assert ("  --step\n" in output) == ("STEP" in source or "step()" in source)
    assert max(map(len, output.partition("Flags:")[2].splitlines())) <= 100


# Prints what is imported when a command ends.
IMPORTED = """
import atexit, sys
from experiments import app, {0}
atexit.register(lambda: print(*sys.modules))
sys.argv = ["", "--help"]
app.run({0}.main)
"""


@pytest.mark.parametrize("name", ["train", "ablation", "sample"])
def test_help_imports_nothing_that_computes(name):
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED.format(name)], cwd=ROOT, capture_output=True, text=True
    )
    loaded = done.stdout.splitlines()[-1].split()
    assert "numpy" in loaded and not {"jax", "scipy", "matplotlib"} & set(loaded)


def run(*arguments, before=(), **rest):
    return subprocess.run(
        [*before, sys.executable, "-m", "experiments.sample", *arguments],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=60, **rest,
    )  # fmt: skip


def test_version():
    done = run("--version", stdout=subprocess.PIPE)
    assert done.returncode == 0 and done.stdout.startswith("vae_jax 0.") and "JAX" in done.stdout


def test_what_standard_output_cannot_take_is_told(tmp_path):
    with open("/dev/full", "w") as full:
        done = run("--help", stdout=full)
    assert done.returncode == 2
    assert done.stderr == "error: standard output could not be written: the disk is full\n"
    closed = run("--help", before=("sh", "-c", 'exec "$@" >&-', "sh"))
    assert closed.returncode == 0 and not closed.stderr


def test_a_training_outlives_its_reader_in_bare_surroundings(tiny_store, tmp_path):
    """No reader, no UTF-8, no HOME, and warnings that the environment makes errors."""
    reading, writing = os.pipe()
    os.close(reading)
    bare = {name: value for name, value in os.environ.items() if name != "HOME"}
    bare |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    bare |= {"PYTHONWARNINGS": "error", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [
            sys.executable, "-m", "experiments.train", f"--config={ROOT / 'configs/tiny.py'}",
            "--workdir=run", "--config.data.name=celeba", f"--config.data.path={tiny_store}",
        ],
        cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, env=bare, timeout=300,
    )  # fmt: skip
    os.close(writing)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "samples.png").exists()


def test_a_platform_that_is_not_there_is_told():
    script = "import jax; from experiments import app; app.run(lambda: len(jax.devices()) * 0)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=60,
        env=os.environ | {"JAX_PLATFORMS": "nowhere"},
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "error: JAX finds no device for JAX_PLATFORMS=nowhere" in done.stderr


READ_ONLY = """
import os
os.access = lambda *_: False
from experiments import app, evaluate
app.run(evaluate.main)
"""


def test_pages_of_a_run_that_one_may_only_read_go_elsewhere(tmp_path):
    done = forks.run("-c", READ_ONLY, f"--workdir={tmp_path}")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == (
        f"error: --out={tmp_path}/evaluation cannot be written: no permission in {tmp_path}; "
        "give another place with --out\n"
    )


def test_the_table_has_every_command():
    assert {name for name, *_ in WRONG_USES} == set(COMMANDS)
