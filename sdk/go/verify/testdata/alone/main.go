// Command alone is a verifier of nothing but package verify: alone FILE KEY.
package main

import (
	"fmt"
	"os"

	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

func main() {
	data, err := os.ReadFile(os.Args[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	report, err := verify.Verify(data, verify.Options{TrustedKeys: os.Args[2:3]})
	if err != nil || !report.Full {
		fmt.Println("refused:", err)
		os.Exit(1)
	}
	fmt.Println(report.Level)
}
