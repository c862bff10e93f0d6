"""experiments.kl_weight as a user runs it."""


def test_the_published_weight_is_converted(command):
    output = command("kl_weight", "--convention=pytorch_vae", "--image_shape=64,64,3")
    assert output.startswith("w = 0.00025 of pytorch_vae") and "beta = 3.072," in output


def test_a_likelihood_that_a_convention_lacks_is_refused(command):
    flags = ("--convention=keras_io", "--likelihood=squared_error")
    output = command("kl_weight", *flags, expect=2)
    assert output == "error: --likelihood=squared_error is none of keras_io's: bernoulli\n"
