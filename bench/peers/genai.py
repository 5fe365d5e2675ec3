"""openvino-genai as a peer: installed from PyPI at a fixed version into an environment of its own, reading the GGUF itself.

Run as a program by that environment's Python, it measures once: genai.py MODEL prompt|gen TOKENS THREADS."""
import pathlib
import sys

PACKAGES = ["openvino-genai==2026.4.0.0", "openvino==2026.4.0"] # the first asks for a range, but links to this one
NAME = "openvino-genai 2026.4"


def find(scratch, given):
    """The environment's Python."""
    python = pathlib.Path(given) if given else scratch / "genai" / "bin" / "python"
    if not python.exists():
        from llama_cpp import call
        print("Making a Python environment with openvino-genai (100 MB)", file=sys.stderr)
        call([sys.executable, "-m", "venv", python.parent.parent])
        call([python, "-m", "pip", "install", "-q", "numpy", *PACKAGES])
    return python


def bench_command(python, model, phase, tokens, threads):
    return [python, __file__, model, phase, tokens, threads]


def bench(python, model, phase, tokens, threads):
    from llama_cpp import call
    return float(call(bench_command(python, model, phase, tokens, threads)).split()[-1])


def main(model, phase, tokens, threads):
    """Random ids, another prompt every time, so that no prefix is remembered. One warm-up, then the best guess at a single
    run: the median of three."""
    import random
    import statistics

    import numpy
    import openvino
    import openvino_genai

    pipe = openvino_genai.LLMPipeline(model, "CPU", INFERENCE_NUM_THREADS=threads, NUM_STREAMS=1)
    config = openvino_genai.GenerationConfig()
    new = tokens + 1 if phase == "gen" else 2
    config.max_new_tokens = config.min_new_tokens = new
    config.ignore_eos, config.do_sample, config.apply_chat_template = True, False, False
    speeds = []
    for i in range(4):
        random.seed(i)
        count = tokens if phase == "prompt" else 4
        ids = numpy.array([[random.randrange(1000, 40000) for _ in range(count)]], dtype=numpy.int64)
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(numpy.ones_like(ids)))
        metrics = pipe.generate(inputs, config).perf_metrics
        speeds.append(1000 * tokens / metrics.get_ttft().mean if phase == "prompt" else 1000 / metrics.get_tpot().mean)
    print(statistics.median(speeds[1:]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
