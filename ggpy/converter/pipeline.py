"""Conversion from end to end: source, recipe, streaming loop, verification, report."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ggpy.blocks import BLOCKS
from ggpy.converter.huggingface import HuggingFaceSource
from ggpy.converter.lora_merge import Weighted
from ggpy.converter.model_plan import ModelPlan, plan_model, widen, wider
from ggpy.converter.on_grid import recognise
from ggpy.converter.options import Options
from ggpy.converter.progress import Meter, OnProgress, OnWarning, Progress, Warnings
from ggpy.converter.proof import Proof
from ggpy.converter.recipes import ALIASES, RECIPES, Recipe
from ggpy.converter.report import Report, TensorReport
from ggpy.converter.requantize import GGUFSource
from ggpy.converter.resume import Resumption
from ggpy.converter.source import Source, SourceTensor
from ggpy.converter.stream import Job, NeedsWider, Stream, Written
from ggpy.converter.tensor_types import PlannedTensor
from ggpy.errors import CheckpointError, GGPyError, printable
from ggpy.gguf import GGUFWriter
from ggpy.quantize.scratch import Scratch
from ggpy.runtime.compiled import prepare
from ggpy.runtime.encode import encode_measured, encoder_name


def convert(
    src: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    type: str | None = None,
    *,
    imatrix: str | os.PathLike[str] | None = None,
    calibrate: str | os.PathLike[str] | None = None,
    method: str | None = None,
    calibration_tokens: int | None = None,
    overrides: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    output_type: str | None = None,
    embedding_type: str | None = None,
    keep_output: bool = False,
    pure: bool = False,
    force: bool = False,
    threads: int | None = None,
    strict: bool = False,
    verify: str | bool = "full",
    allow_uncertified: bool = False,
    measure_error: bool = False,
    resume: bool = False,
    allow_nonfinite: bool = False,
    lora: Sequence[str | os.PathLike[str] | tuple[str | os.PathLike[str], float]] = (),
    on_progress: OnProgress | None = None,
    on_warning: OnWarning | None = None,
) -> Report:
    """Convert a Hugging Face checkpoint directory, or requantize a GGUF file, into the GGUF file `out`.

    out: default is the model's name and type, in the current directory.
    type: a llama-quantize type, or keep or exact, which take quantized weights as they are (see `ggpy.converter.keep`), in any case; by
        default keep for checkpoints that are quantized already, or whose weights lie on a block format's grid, else q4_k_m.
    imatrix: an importance matrix of llama-imatrix, GGUF or the older format: weights that meet large activations are stored better.
    calibrate: a text file, a folder of some or a Hub data set (owner/name[@revision][:FILE]) to take through the model, so that every
        matrix is quantized for the inputs it gets.
    method: how it is rounded then: imatrix, awq, gptq, gptaq or auto (see `ggpy.quantize.ways`). calibration_tokens: how much of the text
        is read, by default 32768 tokens, taken from all over it.
    overrides: block formats of single tensors, such as {"ffn_down": "q6_k"}: the first pattern that is found in a tensor's name counts.
    output_type: block format of output.weight, or of the embedding where that stands for both; embedding_type: of the embedding.
    keep_output: leave output.weight as it is.
    pure: give all matrices the same format, whatever the type's exceptions.
    force: replace an existing file.
    threads: encoders at work, by default all that the machine grants.
    strict: refuse what would only be warned of.
    verify: before the file gets its name: "full" reads it back, and runs a short text through it and its source (see `Certificate`);
    "bytes" only reads it back; "none" does neither.
    allow_uncertified: keep a file whose predictions differ from the source's by more than its formats explain.
    measure_error: decode everything again and report how far it is from the source; always done where the source is quantized itself.
    resume: continue where an interrupted conversion of the same source with the same options stopped; whatever ends this one, what is done
    is kept. Without it, what was left is removed.
    allow_nonfinite: keep NaN and infinity, which are refused otherwise, as they are; a tensor with any is not quantized but gets the
    type of its source, or F32.
    lora: directories of PEFT LoRA adapters to merge into a checkpoint on the way, alone or with the weight that each is taken with.
    on_progress: called after each chunk; on_warning: as soon as something was decided.

    The same input, type and version give the same bytes.
    Raises CheckpointError or GGUFError for input that cannot be converted, GGPyError for a bad type, an existing target or a full disk.
    Whatever goes wrong, `out` is as it was.
    """
    options = Options(
        type=type,
        imatrix=Path(imatrix) if imatrix is not None else None,
        calibrate=Path(calibrate) if calibrate is not None else None,
        method=method,
        calibration_tokens=calibration_tokens,
        overrides=tuple(dict(overrides).items()),
        output_type=output_type,
        embedding_type=embedding_type,
        keep_output=keep_output,
        pure=pure,
        force=force,
        threads=threads,
        strict=strict,
        verify=verify,
        allow_uncertified=allow_uncertified,
        measure_error=measure_error,
        resume=resume,
        allow_nonfinite=allow_nonfinite,
        lora=tuple(Weighted(Path(a[0]), float(a[1])) if isinstance(a, tuple) else Weighted(Path(a)) for a in lora),
        on_progress=on_progress,
        on_warning=on_warning,
    )
    return convert_with(Path(src), Path(out) if out is not None else None, options)


def convert_with(src: Path, out: Path | None, options: Options) -> Report:
    """`convert`, told by `options`."""
    began = time.perf_counter()
    options.check()
    warn, source, kept = Warnings(options.strict, options.on_warning), open_source(src, options.lora), contextlib.ExitStack()
    try:
        warn.extend(source.warnings)
        source.tensors = recognise(source.tensors)
        planned = plan_model(source, options)
        warn.extend(planned.warnings)
        target = out or default_output(source.name, planned.recipe)
        _refuse_input_as_output(source, target)
        if planned.lossy:
            options = replace(options, measure_error=True)
        resumption = Resumption(src, target, options, warn.note)
        scratch = kept.enter_context(Scratch(target.parent)) if options.calibrate is not None else None
        while True:
            try:
                with GGUFWriter(target, alignment=source.alignment, force=options.force, resume=options.resume) as writer:
                    for name, (format, why) in resumption.find(writer).items():
                        warn.extend([widen(planned, name, format, why)])
                    if scratch is not None and planned.coverage is None:
                        _calibrate(source, planned, options, scratch)
                    source.describe(writer, planned.recipe, planned.metadata)
                    proof = Proof(source, target, options)
                    proof.reserve(writer)
                    tokenizer = source.prove_tokenizer()
                    warn.extend(source.warnings)
                    written = _write(writer, source, planned, options, resumption)
                    warn.extend(
                        f"tensor {printable(name)} {tensor.fault}: kept as it is" for name, tensor in written.items() if tensor.fault
                    )
                    file_bytes = writer.file_size
                    proof.complete(writer, planned.tensors, written)
                    warn.extend(proof.warnings)
                break
            except NeedsWider as error:
                format = wider(source, planned, error.name)
                warn.extend([widen(planned, error.name, format, error.what)])
                resumption.wider[error.name] = format, error.what
            except BaseException:
                resumption.tell(len(planned.tensors))
                raise
    finally:
        kept.close()
        source.close()
    tensors = tuple(_tensor_report(source, planned.tensors, written))
    seconds = time.perf_counter() - began
    return Report(
        target,
        planned.recipe.name,
        tensors,
        file_bytes,
        seconds,
        verified=proof.level != "none",
        warnings=tuple(warn.said),
        tokenizer=tokenizer,
        imatrix=planned.coverage,
        n_resumed=resumption.n_resumed,
        certificate=proof.certificate,
        uncertified=proof.uncertified,
        merged=source.merged,
    )


def open_source(path: Path, adapters: Sequence[Weighted] = ()) -> Source:
    """The model at `path`, a checkpoint directory or a GGUF file, with adapters merged into it, which only checkpoints take."""
    if path.is_dir():
        return HuggingFaceSource(path, adapters)
    if adapters:
        raise CheckpointError(f"{printable(path)}: adapters are merged into a checkpoint directory, not into a GGUF file")
    return GGUFSource(path)


def default_output(name: str, recipe: Recipe) -> Path:
    """`name` with the recipe's type, in place of the type a GGUF file's name may end in, in the current directory."""
    stem, separator, last = name.replace(".", "-").rpartition("-")
    known = separator and ALIASES.get(last.upper(), last.upper()) in RECIPES and not last.isdecimal()
    return Path(f"{name[: len(stem)] if known else name}-{recipe.name}.gguf")


def _refuse_input_as_output(source: Source, target: Path) -> None:
    try:
        status = target.stat()
    except (OSError, ValueError):
        return
    if (status.st_dev, status.st_ino) in source.files:
        raise GGPyError(f"{printable(target)}: is the input; name another output")


def _calibrate(source: Source, planned: ModelPlan, options: Options, scratch: Scratch) -> None:
    from ggpy.converter.calibrate import calibrate

    found = calibrate(source, planned, options, scratch)
    as_they_are = {tensor.name for tensor in source.tensors if planned.tensors[tensor.name].format in tensor.repacked}
    planned.blocks = {name: blocks for name, blocks in found.blocks.items() if name not in as_they_are}
    planned.metadata, planned.coverage = {**planned.metadata, **found.metadata}, found.said
    planned.importance |= found.importance


def _repacked(tensor: SourceTensor, planned: PlannedTensor) -> str | None:
    """How the quants of a quantized checkpoint get into the file: "exact", "rounded", or None where they are decoded first."""
    if tensor.quantized is None or planned.format not in tensor.repacked:
        return None
    return "exact" if planned.format in tensor.quantized.exact else "rounded"


def _write(writer: GGUFWriter, source: Source, planned: ModelPlan, options: Options, resumption: Resumption) -> dict[str, Written]:
    jobs = planned.jobs(source)
    for job in jobs:
        writer.add_tensor(job.tensor.name, job.tensor.shape, job.format)
    with resumption.begin(writer) as done:
        jobs = [job for job in jobs if job.tensor.name not in done]
        _compile_encoders([job for job in jobs if not job.copied], options.on_progress)
        values, left = (sum(tensor.n_values for tensor in tensors) for tensors in (source.tensors, [job.tensor for job in jobs]))
        meter = Meter("encode", values, options.on_progress, done=values - left)
        allowed = options.allow_nonfinite and not options.strict
        with Stream(options.workers, encode_measured, options.measure_error, meter, allowed) as stream:
            return done | stream.write(writer, jobs, resumption.note)


def _compile_encoders(jobs: list[Job], on_progress: OnProgress | None) -> None:
    wanted = {(job.format, job.importance is not None and job.format.encode_weighted is not None) for job in jobs}
    names = sorted(name for format, weighted in wanted if (name := encoder_name(format, weighted)) is not None)
    prepare(names, lambda name, done, total: on_progress(Progress("compile", name[0], done, total)) if on_progress else None)


def _tensor_report(source: Source, planned: dict[str, PlannedTensor], written: dict[str, Written]) -> list[TensorReport]:
    return [
        TensorReport(
            tensor.name,
            tensor.origin,
            tensor.dtype,
            planned[tensor.name].format,
            tensor.shape,
            Job(tensor, BLOCKS[planned[tensor.name].format]).n_bytes,
            planned[tensor.name].wanted,
            written[tensor.name].relative_rmse,
            tensor.quantized.method if tensor.quantized else None,
            _repacked(tensor, planned[tensor.name]),
            written[tensor.name].worst_error,
        )
        for tensor in source.tensors
    ]
