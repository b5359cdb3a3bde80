"""The executor that compiles a program to native code: fuse, plan, emit, object code, step."""
