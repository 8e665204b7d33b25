protos:
	python hatch_build.py
