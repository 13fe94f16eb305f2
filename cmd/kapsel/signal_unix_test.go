//go:build unix

package main

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestSecondSignalEndsTheProcess runs itself as a process whose shutdown never ends.
func TestSecondSignalEndsTheProcess(t *testing.T) {
	const variable = "KAPSEL_TEST_HANGING_SHUTDOWN"
	if os.Getenv(variable) != "" {
		ctx, stop := notified()
		defer stop()
		os.Stdout.WriteString("running\n")
		<-ctx.Done()
		os.Stdout.WriteString("stopping\n")
		time.Sleep(time.Minute)
		return
	}
	command := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSecondSignalEndsTheProcess$")
	command.Env = append(os.Environ(), variable+"=1")
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	line := make([]byte, 64)
	for range 2 { // after each of the two lines
		if _, err := output.Read(line); err != nil {
			t.Fatal(err)
		}
		if err := command.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
	}
	err = command.Wait()
	status, _ := command.ProcessState.Sys().(syscall.WaitStatus)
	if !status.Signaled() || status.Signal() != syscall.SIGINT || time.Since(began) > 30*time.Second {
		t.Errorf("it ended after %v: %v", time.Since(began), err)
	}
}
