//go:build awskms

package signer

import (
	"context"
	"encoding/base64"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// openAWSKMSAEAD opens awskms:///<key id, ARN or alias/name>[?region=…] of a key of the spec SYMMETRIC_DEFAULT, for
// ENCRYPT_DECRYPT. The service needs kms:Encrypt and kms:Decrypt.
func openAWSKMSAEAD(ctx context.Context, text string) (tink.AEAD, error) {
	client, keyID, err := newAWSKMS(ctx, text)
	if err != nil {
		return nil, err
	}
	return &awsAEAD{client, keyID}, nil
}

type awsAEAD struct {
	client *kms.Client
	keyID  string
}

func (a *awsAEAD) Encrypt(plaintext, associatedData []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), cloudTimeout)
	defer cancel()
	answer, err := a.client.Encrypt(ctx, &kms.EncryptInput{
		KeyId: aws.String(a.keyID), Plaintext: plaintext, EncryptionContext: encryptionContext(associatedData),
	})
	if err != nil {
		return nil, err
	}
	return answer.CiphertextBlob, nil
}

// Decrypt names the key, so that what another one has encrypted, in whosever account, is refused.
func (a *awsAEAD) Decrypt(ciphertext, associatedData []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), cloudTimeout)
	defer cancel()
	answer, err := a.client.Decrypt(ctx, &kms.DecryptInput{
		KeyId: aws.String(a.keyID), CiphertextBlob: ciphertext, EncryptionContext: encryptionContext(associatedData),
	})
	if err != nil {
		return nil, err
	}
	return answer.Plaintext, nil
}

// encryptionContext is how AWS takes associated data: as text, which must not be empty.
func encryptionContext(associatedData []byte) map[string]string {
	if len(associatedData) == 0 {
		return nil
	}
	return map[string]string{"associated_data": base64.StdEncoding.EncodeToString(associatedData)}
}
